"""`python -m fedseg_mm COMMAND`: the tools, where there may be no checkout."""
import importlib

if __name__ == '__main__':
    from fedseg_mm.cli.commands import main

    # a worker process that is spawned runs this file again, unless it was started as a module: it would then know
    # nothing of this package, without which MMSegmentation cannot be imported everywhere
    __spec__ = None
    main()
elif __name__ == '__mp_main__':
    importlib.import_module('fedseg_mm')
