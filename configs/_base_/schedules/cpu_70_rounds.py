# For the CPU-sized protocol: a constant rate, and a tenth of it for the last rounds, as in the paper's long runs.
_base_ = './cpu_constant_rate.py'
param_scheduler = [dict(type='MultiStepLR', milestones=[60], gamma=0.1, by_epoch=True)]
