"""The delegates whose rules are known."""

from pocketbert.delegation.rules import Profile
from pocketbert.delegation.rules_android import ANDROID
from pocketbert.delegation.rules_litert import LITERT

PROFILES: dict[str, Profile] = {profile.name: profile for profile in (LITERT, ANDROID)}
