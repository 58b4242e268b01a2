#!/bin/sh
# Makes an image of the real nginx out of Debian's packages, without docker and without a registry.
#
#   tests/make-nginx-image.sh OUTPUT.tar
#
# The output is what `docker save nginx` would write: one layer, the names nginx:latest and nginx:<version>. The same
# packages make the same bytes. Needs apt, dpkg, tar and coreutils, which a plain Debian 12 has, and root where apt has no
# package lists yet. Packages are kept in $SKEP_TEST_CACHE, ~/.cache/skep-tests if unset, and fetched once.
#
# Besides the welcome page nginx answers on port 80: /client with the address that the request came from, /hostname with
# the name of the container. Every answer carries X-Served-By with that name. The access log goes to standard output.
set -eu

[ $# -eq 1 ] || { echo "usage: $0 OUTPUT.tar" >&2; exit 2; }
case $1 in /*) output=$1 ;; *) output=$PWD/$1 ;; esac

# Outside of the C locale names would sort differently on different machines; other umasks would change modes.
export LC_ALL=C
umask 022

packages="nginx nginx-common libc6 libcrypt1 libpcre2-8-0 libssl3 zlib1g"
cache=${SKEP_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/skep-tests}/nginx-debs
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# 1. The packages. They are fetched into a directory aside, so that an interrupted download is no cache.
if [ ! -d "$cache" ]; then
    apt-cache show nginx >/dev/null 2>&1 || apt-get -qq update
    mkdir "$work/debs"
    # shellcheck disable=SC2086 # one word each
    (cd "$work/debs" && apt-get -qq -o APT::Sandbox::User=root download $packages) || {
        echo "$0: cannot download nginx from Debian's archive: is there a network, and is 'apt-get update' fresh?" >&2
        exit 1
    }
    mkdir -p "$(dirname "$cache")"
    # Another run may have been quicker: its packages are as good.
    aside=$(mktemp -d "$cache.XXXXXX")
    cp "$work"/debs/*.deb "$aside"
    chmod 755 "$aside"
    mv -T "$aside" "$cache" 2>/dev/null || rm -rf "$aside"
fi

# 2. The root file system: programs, libraries, configuration; no manuals, no init scripts, no locales.
root=$work/root
mkdir "$root"
for deb in "$cache"/*.deb; do
    dpkg-deb -x "$deb" "$root"
done
version=$(dpkg-deb -f "$cache"/nginx_*.deb Version | sed 's/^[0-9]*://; s/-.*//')
architecture=$(dpkg-deb -f "$cache"/nginx_*.deb Architecture)
case $architecture in armhf | armel) architecture=arm ;; i386) architecture=386 ;; ppc64el) architecture=ppc64le ;; esac

rm -rf "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/lintian "$root"/usr/share/vim "$root"/usr/share/apport \
    "$root"/usr/lib/*/gconv "$root"/usr/lib/*/perl* "$root"/etc/init.d "$root"/etc/default "$root"/etc/logrotate.d \
    "$root"/etc/ufw "$root"/etc/ld.so.conf.d "$root"/lib/systemd "$root"/usr/lib/systemd "$root"/etc/nginx/sites-* \
    "$root"/etc/nginx/modules-* "$root"/etc/nginx/snippets "$root"/etc/nginx/conf.d
mkdir -p "$root/tmp" "$root/run" "$root/root" "$root/dev" "$root/proc" "$root/sys" "$root/var/log/nginx" \
    "$root/var/lib/nginx" "$root/var/tmp" "$root/usr/share/nginx/html"
chmod 1777 "$root/tmp" "$root/var/tmp"
chmod 700 "$root/root"

cat >"$root/etc/passwd" <<'END'
root:x:0:0:root:/root:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
END
cat >"$root/etc/group" <<'END'
root:x:0:
www-data:x:33:
nogroup:x:65534:
END
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
cat >"$root/etc/nginx/nginx.conf" <<'END'
user www-data;
worker_processes 2;
daemon off;
pid /run/nginx.pid;
error_log /dev/stderr notice;

events {
    worker_connections 1024;
}

http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    log_format main '$remote_addr - $remote_user [$time_local] "$request" '
                    '$status $body_bytes_sent "$http_referer" "$http_user_agent"';
    access_log /dev/stdout main;
    sendfile on;
    keepalive_timeout 65;
    keepalive_requests 1000000;

    server {
        listen 80 default_server;
        listen [::]:80 default_server;
        root /usr/share/nginx/html;
        add_header X-Served-By $hostname always;
        location = /client {
            default_type text/plain;
            return 200 "$remote_addr\n";
        }
        location = /hostname {
            default_type text/plain;
            return 200 "$hostname\n";
        }
    }
}
END
cat >"$root/usr/share/nginx/html/index.html" <<'END'
<!DOCTYPE html>
<html>
<head><title>Welcome to nginx!</title></head>
<body><h1>Welcome to nginx!</h1></body>
</html>
END

# 3. The archive. Times, owners and the order of names are fixed.
pack() {
    tar --create --format=gnu --sort=name --mtime=@1672531200 --owner=0 --group=0 --numeric-owner "$@"
}
image=$work/image
mkdir "$image"
pack --file="$work/layer.tar" --directory="$root" .
layer=$(sha256sum <"$work/layer.tar" | cut -d' ' -f1)
mkdir "$image/$layer"
mv "$work/layer.tar" "$image/$layer/layer.tar"
cat >"$work/config.json" <<END
{"architecture":"$architecture","os":"linux","created":"2023-01-01T00:00:00Z",\
"config":{"Cmd":["nginx"],"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",\
"NGINX_VERSION=$version"],"ExposedPorts":{"80/tcp":{}},"StopSignal":"SIGQUIT","WorkingDir":"/"},\
"rootfs":{"type":"layers","diff_ids":["sha256:$layer"]}}
END
config=$(sha256sum <"$work/config.json" | cut -d' ' -f1)
mv "$work/config.json" "$image/$config.json"
cat >"$image/manifest.json" <<END
[{"Config":"$config.json","RepoTags":["nginx:latest","nginx:$version"],"Layers":["$layer/layer.tar"]}]
END
# Aside and renamed: nobody finds half an image.
part=$(mktemp "$(dirname "$output")/.nginx-image.XXXXXX")
trap 'rm -rf "$work" "$part"' EXIT
pack --file="$part" --directory="$image" --transform='s,^\./,,' .
chmod 644 "$part"
mv "$part" "$output"
echo "$output: nginx $version, image sha256:$config"
