#!/bin/sh
# Makes the secrets of compose.yaml in ./secrets, each in a file. What is there stays as it is.
# The folder is for you alone; the files may be read by all, as the users of the containers are others than you.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
chmod 0700 secrets

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

secret() { # name value
    [ -s "secrets/$1" ] || printf '%s\n' "$2" >"secrets/$1"
    chmod 0444 "secrets/$1"
}

secret postgres_password "$(random)"
secret app_password "$(random)"
secret watchout_password "$(random)"
secret database_url "postgres://watchout:$(cat secrets/watchout_password)@postgres:5432/app"
secret service_token "$(random)"
secret stats_token "$(random)"
secret alert_webhook_secrets "whsec_$(head -c 24 /dev/urandom | base64)"
echo "secrets are in $(pwd)/secrets; your app's DATABASE_URL: postgres://app:<secrets/app_password>@postgres:5432/app"
