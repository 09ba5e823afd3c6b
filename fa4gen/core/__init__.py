"""The nouns of the field as frozen values. Imports the standard library only.

Everything else in fa4gen takes these values and returns new ones; nothing here knows about
torch, CuTe-DSL, Optuna or a database.
"""
