#!/bin/sh
# Makes the passwords of a cluster in containers, as a libpq password file; keeps those that exist.
#   sh configs/postgresql/passwords.sh [FILE]
set -eu
file=${1:-$(dirname "$0")/../../data/docker/lab/passwords}
[ -e "$file" ] && exit
umask 077
mkdir -p "$(dirname "$file")"
for user in labkit_admin labkit_app labkit_replication; do
  echo "*:*:*:$user:$(od -An -v -N24 -tx1 /dev/urandom | tr -d ' \n')"
done >"$file.$$"
mv "$file.$$" "$file"
