"""The beginning of nginx's configuration files: in the foreground, and all that it writes in one folder."""

from bench.servers import NGINX_FILES

NGINX_HEAD = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 512; }}
http {{
""" + NGINX_FILES
"""To be formatted with `folder`; the block `http` is still open."""
