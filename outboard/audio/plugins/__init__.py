"""VST3 plugins in slots of a chain: what is installed, and processes of their own in which plugins run.

    folders ─► PluginHost ─► PluginProcess (plugin_child.py: one plugin, limits of time and memory)
                   │
               PluginRack (the plugins of one render) ─► HostedPlugin (blocks in, blocks out, latency known)

A plugin is foreign code: it may crash, hang, or ask for all memory. None is ever loaded by the process that asks.
"""
