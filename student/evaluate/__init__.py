"""Progressive evaluation: every arm is judged on predictions made before their example was learnt."""
