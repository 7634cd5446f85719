#!/bin/bash
# Makes dist/*.deb and *.rpm from the wheel in dist/: packages.sh NFPM. They take this distribution's own Python, of this version.
set -eu
cd "$(dirname "$0")/.."
nfpm=$1 python=/usr/bin/python3 root=build/package home=/usr/lib/startgate
[ "$(ls dist/*.whl 2>/dev/null | wc -l)" = 1 ] || { echo "dist/ holds not one wheel: rm -rf dist && make wheel"; exit 1; }
name=$(basename "$(readlink -f $python)")   # python3.11
rm -rf $root; mkdir -p $root/usr/lib

# A virtual environment that is moved: its programs name their interpreter by its path.
"/usr/bin/$name" -m venv --without-pip $root$home
.venv/bin/pip --quiet --disable-pip-version-check --python $root$home/bin/python install --no-compile "$(ls "$PWD"/dist/*.whl)[policy]"
sed -i "1s,^#!.*,#!$home/bin/python," $root$home/bin/startgate
find $root$home/bin -mindepth 1 ! -name 'python*' ! -name startgate -delete
rm -rf $root$home/lib/python3*/site-packages/bazel-project   # the tests of a build system, in CEL's wheel
sed -i '/^command/d' $root$home/pyvenv.cfg
find $root -name RECORD -delete -o -name direct_url.json -delete

# Made by the startgate that it is for; the package manager keeps the record of its files.
$root$home/bin/python -P -c 'from startgate.cli import main; main()' install --root $root --prefix /usr --command $home/bin/startgate >build/package.log
rm -rf $root/usr/share/startgate
find $root -name __pycache__ -prune -exec rm -rf {} +

export PYTHON=$name VERSION ARCHITECTURE
VERSION=$($root$home/bin/python -B -c 'import startgate; print(startgate.__version__)')
ARCHITECTURE=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1580601600}   # as hatchling's: the same bytes each time
find $root -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
for kind in deb rpm; do
  "$nfpm" package --config packaging/nfpm.yaml --packager $kind --target dist/
done
