"""
Kubernetes' API, for the drivers that share it.

access.py     which cluster, as whom, and which namespace: from the inventory
cluster.py    one request, one answer, within a time; what went wrong as a driver error
kinds.py      the paths of what is read and written
looking.py    lists that several drivers share for a moment
objects.py    reading workloads and pods
places.py     where workers are: pods of StatefulSets, by their names, and of Deployments, by their owners
ailing.py     why a pod doesn't run, in a sentence
acts.py       what effects do, as data with preconditions
evicting.py   whether a pod may go
awaiting.py   the end of a pod, and the next one
returning.py  a workload is given back as it was
told.py       what each worker was told to run, and how a workload was before us
grants.py     what our account needs

Only this package imports the client, and only when something is asked.
"""
