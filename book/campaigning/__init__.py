"""The parts of book/campaign.py, which turns minutes of a machine into published runs."""
