"""A pod on Kubernetes: HTTP/2 without TLS from ingress or mesh, health checks by HTTP/1.1, on one port.

    gunicorn app:app -c kubernetes.py
"""

worker_class = "gunicorn_h2.ThreadWorker"
bind = "0.0.0.0:8000"

# One worker for each core that the pod may use; more pods rather than more workers.
workers = 2
threads = 16

# HTTP/2 by prior knowledge is what `appProtocol: kubernetes.io/h2c` asks for; kubelet's probes are HTTP/1.1.
http2_cleartext = "both"

# The pods' network, where ingress controllers and meshes are. Others get HTTP/1.1: a kubelet, whose probes come
# from the node's address, too. Whoever is in this network is believed: a NetworkPolicy says who can connect.
forwarded_allow_ips = "10.0.0.0/8"

# Many clients on few connections. Streams, octets.
http2_max_concurrent_streams = 250
http2_connection_window_size = 4 * 1024 * 1024

# A Service chooses a pod when a connection is made. Connections that end now and then spread the load over new pods.
# Seconds, give or take a tenth.
http2_max_connection_age = 300
keepalive = 120

# Octets that responses may occupy on /tmp for clients that read slowly, for each worker.
http2_worker_spool_size = 512 * 1024 * 1024

# Of terminationGracePeriodSeconds, what preStop has left. Seconds.
graceful_timeout = 30

# Workers tell the master that they live by a file; the root file system may be read-only.
worker_tmp_dir = "/dev/shm"
accesslog = "-"

# No socket for gunicornc: there is no home directory for it, and nobody to use it.
control_socket_disable = True
