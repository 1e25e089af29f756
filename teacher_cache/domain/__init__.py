"""From a target row to the teacher's logits: the domain map, its faults, and the call.

Doors: `domain_map`, `domain_map_faults`, `request_scorer`, `context_key`.
Imports: `teacher_cache`, `stream`, `features`, `runtime`.
"""
