from .check import check_data_folders, check_seed, warn_of_iterations
from .federate import federate, federated_section
from .federate_plain import federate_plain
from .load import CFG_OPTIONS_HELP, find_config, load_config, parse_options, short_path, tool

__all__ = [
    'CFG_OPTIONS_HELP', 'check_data_folders', 'check_seed', 'federate', 'federate_plain', 'federated_section',
    'find_config', 'load_config', 'parse_options', 'short_path', 'tool', 'warn_of_iterations'
]
