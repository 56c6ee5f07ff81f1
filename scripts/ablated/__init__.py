"""Methods with a part changed or left out, for scripts/ablations.py alone: method._target_=ablated.… trusted=[ablated]"""
