"""Where bits lie: swizzles, matrix descriptors, register fragments, tensor memory and TMA boxes.

Pure functions on integers and NumPy arrays; nothing here holds the state of a machine.
"""
