"""Many boxes' message streams from one process, made by the parts of real boxes (`simulate
--fleet`).
"""
