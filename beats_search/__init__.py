"""beats-search: how small and fast can a network get before it gets worse?"""
