"""From the tables of a Better Auth database to the statements that are run on it."""
