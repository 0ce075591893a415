"""Installs fedseg_mm; pyproject.toml says what it is and needs."""
from setuptools import setup

setup()
