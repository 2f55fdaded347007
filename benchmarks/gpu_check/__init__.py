"""All measurements that need a GPU, in stages that write JSON at once; `__main__` lists them in their order."""
