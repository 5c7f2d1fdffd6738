"""Task files of the STAR dataset (Mosig et al. 2020) as domains.

STAR's own texts reach the folders that a user writes domains to, and nothing else: no text of it is
part of this package.
"""
