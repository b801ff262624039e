#!/bin/sh
# Installs watchout as services of systemd, as root:  deploy/systemd/install.sh [WHAT …]
#
# WHAT is what pip shall install into /opt/watchout, such as dist/watchout-0.2.0-py3-none-any.whl or 'watchout[nats]'.
# Without it only the units are installed: /opt/watchout is there already, or comes in another way. It can be run again,
# for another version: settings are not touched, and nothing is restarted. Nothing is started either: docs/deploy.md.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
units=/etc/systemd/system

if [ $# -gt 0 ]; then
    [ -x /opt/watchout/bin/python ] || python3 -m venv /opt/watchout
    /opt/watchout/bin/python -m pip install --quiet --upgrade "$@"
fi
if [ ! -x /opt/watchout/bin/watchout-gateway ]; then
    echo "$0: there is no /opt/watchout/bin/watchout-gateway: name what pip shall install" >&2
    exit 1
fi

install -D -m 0644 "$here/watchout.sysusers" /usr/lib/sysusers.d/watchout.conf
systemd-sysusers watchout.conf
install -d -m 0750 -g watchout /etc/watchout
[ -e /etc/watchout/watchout.env ] || install -m 0640 -g watchout "$here/watchout.env" /etc/watchout/watchout.env
for unit in watchout.target watchout-router.service watchout-gateway@.service watchout-gateway.socket \
    watchout-mlbridge@.service; do
    install -D -m 0644 "$here/$unit" "$units/$unit"
done
install -D -m 0755 "$here/watchout-ctl" /usr/local/bin/watchout-ctl
# Until 0.2.0 each gateway had a socket of its own: it serves on until it is stopped, and is not opened at the next boot.
for each in "$units"/sockets.target.wants/watchout-gateway@*.socket; do
    [ ! -L "$each" ] || systemctl --quiet disable "${each##*/}"
done
if [ -d "$units/watchout-gateway@.socket.d" ] && [ ! -e "$units/watchout-gateway.socket.d" ]; then
    cp -R "$units/watchout-gateway@.socket.d" "$units/watchout-gateway.socket.d"
fi
systemctl daemon-reload
systemctl --quiet enable watchout.target watchout-router.service watchout-gateway@1.service watchout-gateway.socket \
    watchout-mlbridge@1.service
echo "installed; settings: /etc/watchout/watchout.env; start: systemctl start watchout.target"
