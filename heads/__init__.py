"""Multiple-instance heads, one in each file, and the table of their names.

Names are imported on first use; `__init__.pyi` lists their modules.
"""

if "." not in __name__:  # imported from a checkout by its bare name, which other modules have too
    import runpy

    runpy.run_path(f"{__path__[0]}/../shadowing.py")["hand_over"](__name__)
else:
    import lazy_loader

    __getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
