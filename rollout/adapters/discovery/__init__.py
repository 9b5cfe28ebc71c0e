"""
What a homeserver consists of, read from the files that are there: nothing is contacted, nothing is written.

synapse_yaml.py      homeserver.yaml and worker files, as Synapse reads them
haproxy_cfg.py       HAProxy's configuration: backends, servers, what leads to them, the admin socket
nginx_conf.py        nginx's: upstreams, servers, what leads to them
unit_files.py        systemd's units, those enabled of a template among them
supervisord_conf.py  supervisord's socket and programs
places.py            which files that is, where nobody names them
look.py              all of it

None of these files is ours. They are read as leniently as by the program that they are for; what isn't understood is skipped.
"""
