"""Turns the tables of a Better Auth database into the SQL statements that look users up."""
