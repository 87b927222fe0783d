# SPDX-License-Identifier: Apache-2.0
"""Makes rules/MODEL_TYPE/CLASS.textproto from the behaviour of the installed transformers. scripts/make_rules.py is
the command."""
