"""What must not miss a row: takes rows in order, settles each when it has done with it.

``intake`` is the store's side of it (window, sessions, receipts); ``durable`` runs a consumer that
keeps a database of its own. A process that consumes says so in bus/topology.py and stands in
services/runtime/consumers.py; nothing else knows which ones there are.
"""
