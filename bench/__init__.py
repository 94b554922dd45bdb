"""The benchmark: every server on the same machine, in the same minutes, doing the same work.

    make bench                                             everything
    make bench BENCH="--servers 'thread*,granian-wsgi' --workloads 'hello*' --rounds 3"
    make bench-compare A=v0.1.0 B=HEAD                     two revisions of this package
    make profile                                           where a request's time and calls go

Modules: `servers` and `workloads` are the tables to extend. `runner` interleaves them, `running` and
`processes` start, watch and end the servers, `h2load`, `client` and `link` make the load, `results`
holds the figures, `report` and `charts` print them. `profile` and `callcount` look inside a worker, and `sendfile`
at what the kernel could send by itself.
"""
