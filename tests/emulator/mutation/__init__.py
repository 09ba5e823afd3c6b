"""Sabotage of good kernels: does the emulator notice?"""
