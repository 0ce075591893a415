"""Silos: clients on machines of their own, over NVFLARE; imports nothing that takes time."""
