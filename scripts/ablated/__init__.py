"""Methods with a part changed or left out, for scripts/ablations.py: method._target_=ablated.… trusted=[ablated]"""
