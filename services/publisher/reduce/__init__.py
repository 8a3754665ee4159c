"""``outputs: {…, reduce: {step: 60s}}``: sums of each step instead of every message.

``field`` and ``stream`` are pure arithmetic; ``reducer`` is the consumer that takes raw rows and
keeps, in one transaction, its position, the steps that are not over and the messages that wait
(``memory``); ``source`` gives those to the ordinary output as if they came from the store.
"""
