from .check import check_config, drop_worker_options, warn_of_iterations, warn_of_workers, weight_sources
from .check_data import check_data_folders, class_names
from .federate import federate, federated_section
from .federate_plain import federate_plain
from .load import find_config, load_config, parse_options, short_path, tool
from .replace_data import replace_data
from .sections import evaluator_dicts

__all__ = [
    'check_config', 'check_data_folders', 'class_names', 'drop_worker_options', 'evaluator_dicts',
    'federate', 'federate_plain', 'federated_section', 'find_config', 'load_config', 'parse_options', 'replace_data',
    'short_path', 'tool', 'warn_of_iterations', 'warn_of_workers', 'weight_sources'
]
