"""The proxy in front of a Docker fleet that loses no request while members are swapped. Pure: it is one nginx file.

What makes it true, together with a surge:
- the upstream is a variable, so that nginx asks Docker's DNS again (`valid=1s`) instead of once when it starts;
- during `settle` (longer than that second) old and new both stand behind the name: no answer names only the old one;
- an address that no longer answers costs one second (`proxy_connect_timeout`), then the next address is asked; a
  request that was already sent is sent again only if that is harmless (nginx repeats no POST);
- the old member is told to stop and has `drain` to end what it has begun.
"""

from __future__ import annotations

_CONFIG = """worker_processes 1;
pid /tmp/nginx.pid;
error_log /dev/stderr warn;
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  resolver 127.0.0.11 valid=1s ipv6=off;
  resolver_timeout 2s;
  server {
    listen 8080;
    location / {
      set $upstream "@NAME@:@PORT@";
      proxy_pass http://$upstream;
      proxy_connect_timeout 1s;
      proxy_next_upstream error timeout;
      proxy_next_upstream_tries 4;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }
  }
}
"""


def nginx_config(name: str, port: int) -> str:
    """An nginx configuration that passes everything on to the network alias `name`, whose members serve `port`."""
    return _CONFIG.replace("@NAME@", name).replace("@PORT@", str(port))
