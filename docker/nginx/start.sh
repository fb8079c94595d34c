#!/bin/sh
# Writes the limits that follow from the service's settings, then becomes nginx.
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
exec nginx -e stderr -g "daemon off;"
