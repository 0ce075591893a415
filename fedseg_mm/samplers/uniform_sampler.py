"""The default sampler: every client is as likely as any other."""
from fedseg_mm.registry import CLIENT_SAMPLERS
from fedseg_mm.samplers.client_sampler import ClientSampler
from fedseg_mm.seeding import derived_generator


@CLIENT_SAMPLERS.register_module()
class UniformSampler(ClientSampler):
    """``clients_per_round`` clients, uniformly and without replacement."""

    def cohort(self, seed: int, round: int) -> list[int]:
        generator = derived_generator(seed, 'cohort', round)
        return generator.choice(self.num_clients, self.clients_per_round, replace=False).tolist()
