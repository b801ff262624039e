#!/bin/sh
# Run once by the image of PostgreSQL, when the volume is new: the roles of the app and of watchout.
# The app makes its tables by its own migration; after that, grants.sh.
set -eu
secrets=${SECRETS:-/run/secrets}
psql -v ON_ERROR_STOP=1 --quiet --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    -v database="$POSTGRES_DB" \
    -v app_password="$(cat "$secrets/app_password")" \
    -v watchout_password="$(cat "$secrets/watchout_password")" <<'SQL'
create role app login password :'app_password';
create role watchout login password :'watchout_password' connection limit 50;
grant create on database :"database" to app;
grant all on schema public to app;
grant usage on schema public to watchout;
SQL
