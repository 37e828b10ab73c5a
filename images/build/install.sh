#!/bin/sh
# Installs the packages named as arguments from the repository beside this script, inside a container without network.
# SOURCE_DATE_EPOCH in the environment. Everything apt itself needs for that stays out of the image.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
scratch=$(mktemp -d)
policy=/usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PYTHONHASHSEED=0

printf 'deb [trusted=yes] file:%s ./\n' "$here" >"$scratch/sources.list"
mkdir -p "$scratch/lists/partial" "$scratch/cache/archives/partial"
cat >"$scratch/apt.conf" <<END
Dir::Etc::sourcelist "$scratch/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$scratch/lists";
Dir::Cache "$scratch/cache";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
DPkg::Options { "--force-unsafe-io"; "--force-confold"; };
END
export APT_CONFIG="$scratch/apt.conf"

# Nothing may start a service while an image is made.
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 0755 "$policy"
apt-get -qq update
apt-get -qq -y --no-remove install -- "$@"
rm -rf "$policy" "$scratch"
