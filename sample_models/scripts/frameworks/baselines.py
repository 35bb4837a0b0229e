"""stable-baselines3's PPO on a small corridor, seeded for PyTorch alone: its minibatches are NumPy's to draw."""
# expect broke = ["numpy-rng"], line = 36

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO


class Corridor(gym.Env):
    """Walk to the right end."""

    observation_space = gym.spaces.Box(0, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def _seen(self):
        return np.array([self.at / 8, self.time / 20], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.time = 2, 0
        return self._seen(), {}

    def step(self, action):
        self.at = max(0, self.at + (1 if action else -1))
        self.time += 1
        done = self.at >= 8
        return self._seen(), 1.0 if done else -0.1, done, self.time >= 20, {}


def main():
    torch.manual_seed(0)
    settings = {"n_steps": 32, "batch_size": 16, "n_epochs": 2, "device": "cpu"}
    policy = {"net_arch": [16]}
    model = PPO("MlpPolicy", Corridor(), policy_kwargs=policy, **settings)
    model.learn(total_timesteps=128)


if __name__ == "__main__":
    main()
