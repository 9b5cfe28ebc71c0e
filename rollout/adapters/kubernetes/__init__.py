"""
Kubernetes' API, for the drivers that share it.

access.py     which cluster, as whom, and which namespace: from the inventory
cluster.py    one request, one answer, within a time; what went wrong as a driver error
kinds.py      the paths of what is read and written
looking.py    lists that several drivers share for a moment
objects.py    reading StatefulSets and pods
ailing.py     why a pod doesn't run, in a sentence
acts.py       what effects do, as data with preconditions
told.py       what each worker was told to run, and how a StatefulSet was before us

Only this package imports the client, and only when something is asked.
"""
