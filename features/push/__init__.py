"""Writes running aggregates and profiles to the online store: pusher; pushed_rows and push_order keep owner and order.

Imports features.repo and features.online.
"""
