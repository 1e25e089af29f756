#!/bin/sh
# Saves and restores the volumes of docker-compose.yml as tar files, while the stack is stopped:
#   deploy/volumes.sh save FOLDER [VOLUME ...]
#   deploy/volumes.sh restore FOLDER [VOLUME ...]
# Without VOLUME all that hold data. COMPOSE_PROJECT_NAME names the stack (graft). FOLDER/secrets.tar has passwords.
set -eu
usage="usage: $0 save|restore FOLDER [VOLUME ...]"
verb=${1:?$usage} folder=${2:?$usage}
shift 2
[ $# -gt 0 ] || set -- kafka redis project versions examples secrets
project=${COMPOSE_PROJECT_NAME:-graft}
fail() { echo "error: $*" >&2; exit 1; }
in_volume() { # VOLUME COMMAND...: a shell command in a container that has the volume alone
  volume=$1
  shift
  docker run --rm --interactive --network none --user 0 --entrypoint sh --volume "${project}_$volume:/volume" \
    graft-scorer -c "$@"
}

[ -z "$(docker compose --project-name "$project" ps --quiet --status running)" ] ||
  fail "the stack '$project' runs; stop it first: docker compose stop"
case $verb in
save)
  umask 077
  mkdir -p "$folder"
  for name; do
    docker volume inspect "${project}_$name" >/dev/null || fail "there is no volume ${project}_$name"
    in_volume "$name" "tar -C /volume -c ." >"$folder/.$name.tar"
    mv "$folder/.$name.tar" "$folder/$name.tar"
    echo "saved $name: $(wc -c <"$folder/$name.tar") bytes"
  done
  ;;
restore)
  for name; do [ -s "$folder/$name.tar" ] || fail "$folder/$name.tar is missing or empty; nothing was changed"; done
  docker compose --project-name "$project" up --no-start --quiet-pull 2>/dev/null || fail "docker compose up --no-start fails"
  for name; do
    in_volume "$name" "find /volume -mindepth 1 -delete && tar -C /volume -xp" <"$folder/$name.tar"
    echo "restored $name"
  done
  ;;
*) fail "$usage" ;;
esac
