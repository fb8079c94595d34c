#!/bin/sh
# Writes the limits that follow from the service's settings, waits until the service has an address, then becomes nginx.
set -eu
max_body=${MAX_BODY_BYTES:-33554432}
deadline=${REQUEST_DEADLINE_SECONDS:-10}
rate=${REQUESTS_PER_SECOND:-100} # of one client's address
port=${HTTPS_PORT:-443}
cat >/tmp/limits.conf <<END
client_max_body_size $max_body;
map "" \$max_body_bytes { default $max_body; }
# Longer than the service's own deadline, whose 504 says more.
proxy_read_timeout $((${deadline%%.*} + 5))s;
limit_req_zone \$binary_remote_addr zone=requests:10m rate=${rate}r/s;
limit_req zone=requests burst=$((2 * rate)) nodelay;
map "" \$https_port { default "$([ "$port" = 443 ] || echo ":$port")"; }
END
# nginx looks the name up once and ends where there is none: for a moment after a start, or while no service runs.
tries=0
until getent hosts service >/dev/null; do
    [ $((tries += 1)) -ne 25 ] || echo "there is no address of the service yet; waiting for one" >&2
    sleep 0.2
done
exec nginx -e stderr -g "daemon off;"
