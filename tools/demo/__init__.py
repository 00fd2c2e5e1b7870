"""The parts of the demo world's builder: one module a stage, run by `tools/build_demo.py`."""
