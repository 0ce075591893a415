default_scope = 'mmseg'
custom_imports = dict(imports=['fedseg_mm'], allow_failed_imports=False)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))
randomness = dict(seed=0)
# for TensorBoard: vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='RoundLogProcessor')
log_level = 'INFO'
load_from = None
resume = False
# to MMEngine, a round is an epoch of one iteration
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='RoundLoggerHook', interval=1),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook', interval=10, by_epoch=True, filename_tmpl='round_{}.pth', max_keep_ckpts=2,
        save_best='mIoU'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
    mean_evaluation=dict(type='MeanEvaluationHook'))
tta_model = dict(type='SegTTAModel')
