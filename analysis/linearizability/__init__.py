"""Is a history linearizable?"""
