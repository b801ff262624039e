#!/bin/sh
# Lets watchout read the columns of Better Auth's tables that it needs, of those that are there; after each migration:
#   docker compose exec postgres grants.sh
# The columns, and why: docs/better-auth.md, "Create a database role".
set -eu
psql -v ON_ERROR_STOP=1 --quiet --username "${POSTGRES_USER:-postgres}" --dbname "$POSTGRES_DB" <<'SQL'
do $$
declare
  found record;
begin
  if to_regclass('public.session') is null then
    raise exception 'there is no table "session": run the migration of your app first';
  end if;
  for found in
    select wanted.name, string_agg(format('%I', columns.attname), ', ') as columns
    from (values
      ('session', '{id,token,userId,user_id,expiresAt,expires_at}'::text[]),
      ('user', '{id,role,banned,banExpires,ban_expires}'),
      ('member', '{userId,user_id,organizationId,organization_id,role}'),
      ('verification', '{identifier,value,expiresAt,expires_at}')
    ) as wanted (name, columns)
    join pg_attribute as columns
      on columns.attrelid = to_regclass(format('public.%I', wanted.name))
      and columns.attname = any (wanted.columns) and not columns.attisdropped
    group by wanted.name
  loop
    execute format('grant select (%s) on public.%I to watchout', found.columns, found.name);
  end loop;
  if to_regclass('public.verification') is not null then
    grant delete on public.verification to watchout;
  end if;
end $$;
SQL
