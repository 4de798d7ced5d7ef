#!/bin/sh
# Runs one node of docker-compose.yaml.
#   node.sh run       create the data if there is none, then run the server in the role that its data says
#   node.sh healthy   whether the server accepts queries in that role
#
# The data is created once: by initdb on the first node of a new cluster, on all others by pg_basebackup from the node
# that is primary. The image must have PostgreSQL's programs on PATH, user postgres, sh, and setpriv.
set -eu

node=$(cat /etc/hostname)
version=$(postgres --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
data=$PGDATA
PGPASSFILE=/run/labkit/pgpass PGUSER=labkit_admin PGDATABASE=postgres PGCONNECT_TIMEOUT=2
export PGPASSFILE PGUSER PGDATABASE PGCONNECT_TIMEOUT
first=pg1
deadline_s=600

say() { echo "node.sh: $*" >&2; }
fail() { say "$*"; exit 1; }
password() { sed -n "s/^\*:\*:\*:$1://p" "$PGPASSFILE"; }
query() { psql --no-psqlrc --quiet --tuples-only --no-align --no-password --set ON_ERROR_STOP=1 "$@"; }
replica_by_data() { [ -e "$data/standby.signal" ] || [ -e "$data/recovery.signal" ]; }

# The name of the node that is primary now; nothing if none answers as one.
primary() {
  query --dbname 'host=nodes target_session_attrs=read-write' -c "SELECT current_setting('cluster_name')" 2>/dev/null || true
}

# If any node answers, even a replica, the cluster exists: a second one must not be created beside it.
others_answer() { query --dbname 'host=nodes' -c 'SELECT 1' >/dev/null 2>&1; }

as_root() {
  # libpq requires a password file that no other user can read, whatever the owner of the secret.
  (umask 077 && cat /run/secrets/passwords >"$PGPASSFILE")
  chown postgres: "$PGPASSFILE" /run/labkit /var/lib/postgresql
  exec setpriv --reuid=postgres --regid=postgres --init-groups sh "$0" run
}

check_version() {
  found=$(cat "$data/PG_VERSION")
  [ "$found" = "$version" ] || fail "the volume of $node holds data of PostgreSQL $found, the image has PostgreSQL" \
    "$version; set LABKIT_PG_IMAGE to an image of PostgreSQL $found, or remove the volume to start over"
}

# labkit creates this file when a node is to be recreated as a replica.
rebuild=/var/lib/postgresql/rebuild

# The data is created beside the data directory and moved there when it is complete.
make_data() {
  rm -rf "$data.new"
  source=$(primary)
  if [ "$node" = "$first" ] && ! others_answer; then make_first; else make_replica; fi
  mv "$data.new" "$data"
}

make_first() {
  say "making the first primary"
  (umask 077 && password labkit_admin >/run/labkit/admin)
  # Bytes decide the order of text, the same in every version and on every system.
  initdb --pgdata="$data.new" --username=labkit_admin --pwfile=/run/labkit/admin --auth=scram-sha-256 \
    --data-checksums --encoding=UTF8 --locale=C
  rm /run/labkit/admin
  configure "$data.new" primary
  # It accepts no connections over the network before its roles exist.
  pg_ctl --pgdata="$data.new" --wait --silent --options="-c listen_addresses= -c unix_socket_directories=/tmp" start
  query --host=/tmp <<-SQL
	\set app \`sed -n 's/^.*:labkit_app://p' "\$PGPASSFILE"\`
	\set replication \`sed -n 's/^.*:labkit_replication://p' "\$PGPASSFILE"\`
	CREATE ROLE labkit_app LOGIN PASSWORD :'app';
	CREATE ROLE labkit_replication LOGIN REPLICATION PASSWORD :'replication';
	CREATE DATABASE labkit TEMPLATE template0;
	REVOKE ALL ON DATABASE labkit FROM PUBLIC;
	GRANT CONNECT ON DATABASE labkit TO labkit_app;
	\connect labkit
	REVOKE ALL ON SCHEMA public FROM PUBLIC;
	GRANT USAGE ON SCHEMA public TO labkit_app;
	ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO labkit_app;
	ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO labkit_app;
	SQL
  pg_ctl --pgdata="$data.new" --wait --silent --mode=fast stop
}

make_replica() {
  say "waiting for a primary to copy"
  give_up=$(($(date +%s) + deadline_s))
  while [ -z "${source:=$(primary)}" ]; do
    [ "$(date +%s)" -lt "$give_up" ] || fail "no node has answered as primary for $deadline_s s; start one, then this node again"
    sleep 0.2
  done
  say "copying $source"
  # A slot left over from earlier data may hold WAL that is not needed, or have lost WAL that is.
  query --host="$source" <<-SQL
	SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = '$node' AND active;
	SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '$node';
	SQL
  # -R writes these into primary_conninfo, with the path of the password file instead of a password.
  pg_basebackup --pgdata="$data.new" --write-recovery-conf --create-slot --slot="$node" --wal-method=stream \
    --checkpoint=fast --no-password \
    --dbname="host=$source user=labkit_replication application_name=$node sslmode=disable gssencmode=disable"
}

# The files in configs/postgresql/ are read where they are mounted; experiment.conf, beside the data, adds to them.
configure() {
  cat >"$1/postgresql.conf" <<-CONF
	include '/etc/labkit/$2/postgresql.conf'
	include_if_exists '/var/lib/postgresql/experiment.conf'
	hba_file = '/etc/labkit/$2/pg_hba.conf'
	CONF
}

run() {
  [ "$(id -u)" = 0 ] && as_root
  if [ -e "$rebuild" ]; then rm -rf "$data" && rm "$rebuild" && first=; fi
  if [ -e "$data/PG_VERSION" ]; then check_version; else make_data; fi
  role=primary
  if replica_by_data; then role=replica; fi
  configure "$data" "$role"
  say "PostgreSQL $version starts as a $role"
  exec postgres -D "$data" -c cluster_name="$node" -c listen_addresses='*' -c unix_socket_directories=/tmp
}

healthy() {
  recovering=f
  if replica_by_data; then recovering=t; fi
  [ "$(query --host=/tmp -c 'SELECT pg_is_in_recovery()')" = "$recovering" ]
}

case ${1-} in
  run | healthy) "$1" ;;
  *) fail "usage: node.sh run | healthy" ;;
esac
