"""A config whose text is made once."""
from mmengine.config import Config


class FormattedOnceConfig(Config):
    """MMEngine's config, which formats its text again only once its content has changed.

    The text goes into every checkpoint, and formatting takes longer than
    writing one.
    """

    @classmethod
    def of(cls, cfg: Config) -> 'FormattedOnceConfig':
        """The same config, sharing its content."""
        own = cls.__new__(cls)
        own.__dict__.update(cfg.__dict__)
        return own

    @property
    def pretty_text(self) -> str:
        """The config as Python code."""
        content = repr(self._cfg_dict)
        before, text = self.__dict__.get('_formatted', ('', ''))
        if content != before:
            text = super().pretty_text
            self.__dict__['_formatted'] = content, text
        return text
