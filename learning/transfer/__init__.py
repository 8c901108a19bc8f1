"""What is done with a trained network beyond training it: calibrated probabilities, small students of large teachers, ONNX files.

Owns nothing itself; each file is imported by its name, so that a process that only calibrates never pays for torch. Must never
import intake: the frozen encoders that features come from are known by name (docs/developer/transfer.md). Called by the train
role, by `Algorithm.load`, by the command line and by the bench.
"""
