"""On the real lab: Synapse, PostgreSQL, Valkey, HAProxy and supervisord on this machine. One lab serves all, one test after another."""
